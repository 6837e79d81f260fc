"""From the options of ``boxwright train`` to what it trains."""
