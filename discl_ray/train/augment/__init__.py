"""What is done to a training image before it is seen."""
