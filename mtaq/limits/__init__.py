"""Back-off and limits; every function takes the time as an argument."""
