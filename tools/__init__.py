"""What trains and checks the embedded models."""
