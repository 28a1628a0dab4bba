"""Surface-crack detection with a two-stage network (segmentation, then decision; Tabernik 2019).

One image's way from archive to report; a module imports only modules that stand before it:

    errors, storage              what can go wrong; atomic files
    settings                     one typed schema of every hyperparameter
    run                          the run folder: what is done and what comes next
    archive, synthetic           the data set: fetched and unpacked, or generated
    dataset, folds, inspection   samples, masks, twins; official and clean folds; the data report
    targets, batches             annotation types, soft targets; deterministic order, rotation
    model                        SegmentationNet, DecisionNet, TwoStageNet
    checkpoint, train            exact resume; the two stages
    metrics, evaluate            pure functions; scores -> predictions.csv -> metrics.json
    visualize, report            figures; one HTML file to send
    colab, controls              platform and Drive; widgets from the schema
    __main__                     the same series without a browser
"""

__version__ = "0.1.0"
