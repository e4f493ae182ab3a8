"""What runs items: the daemon, its dispatcher, and the executors that it hands attempts to."""
