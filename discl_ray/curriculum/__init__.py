"""Which images does a stage train on? Strategies (pure), mixing into an epoch's order, and the controller."""
