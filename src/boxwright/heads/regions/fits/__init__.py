"""Values fitted to the training set: R-CNN's SVMs and ridge regression, statistics of box targets."""
