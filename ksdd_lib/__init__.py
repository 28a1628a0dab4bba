"""Surface-crack detection with a two-stage network (segmentation, then decision; Tabernik 2019).

One image's way from archive to report; a module imports only modules that stand before it:

    errors, storage              what can go wrong; atomic files
    settings, machine            one typed schema of every hyperparameter; what this machine can do
    run                          the run folder: what is done and what comes next
    pixels, synthetic            files to pixels; generated surfaces
    members, archive             what is in a zip archive; the data set fetched and unpacked
    twins, dataset               one part under two names; samples and masks
    folds, inspection, prepare   official and clean folds; the data report; all of it for one run
    fourier, model, memory       the large convolution by its spectra; the networks; their memory
    targets, copy_paste, batches annotation types; defects on other grounds; deterministic order
    checkpoint, train            exact resume; the two stages
    metrics, operating           pure functions of scores; what each threshold costs
    protocols                    the same scores under each protocol of the literature
    origin, evaluate             what results are made from; scores -> predictions.csv, metrics.json
    weights, predict             a model to give away; one image -> score, verdict, mask
    visualize, panels, lessons   curves; pictures of surfaces; figures that explain the method
    stored, wording              results read as a whole; what they say, in words
    report, share                all of a run in one HTML file; an executed notebook to send
    results, tables              what stays in the repository; its tables
    vouched, mailbox             files that are whole by their markers; copies of a run on Drive
    recovery, courier            back from there; copies in the background
    colab                        Colab itself
    outputs, live                what a cell shows; a training while it runs
    estimate                     what a choice of settings takes on this machine
    controls, explore, browse    widgets from the schema; looking into results
    __main__                     the same series without a browser
"""

__version__ = "0.1.0"
