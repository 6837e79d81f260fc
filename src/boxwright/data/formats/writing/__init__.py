"""Parts that the writers of the formats share."""
