"""What a stage trains on: strategies (pure), the order of an epoch, and the controller."""
