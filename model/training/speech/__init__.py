"""Speech for training: synthesisers with alignments, augmentation, an independent recogniser."""
