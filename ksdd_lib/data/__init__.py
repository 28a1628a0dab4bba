"""Files, archives and generated surfaces become samples with masks, and folds that do not leak."""
