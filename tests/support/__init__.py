"""What several files of tests use: tiny configurations, odd images, models of every family, runs to end."""
