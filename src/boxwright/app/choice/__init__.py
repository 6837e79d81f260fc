"""Choice of a recipe for a data set and a machine: ``boxwright recommend``, and ``train`` without a recipe."""
