"""What training and evaluation share: configurations, data, models by name, run folders."""
