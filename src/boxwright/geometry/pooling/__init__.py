"""RoI pooling: the feature table, RoIAlign and RoIPool, position-sensitive pooling, warped crops."""
