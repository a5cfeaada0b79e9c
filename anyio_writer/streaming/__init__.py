"""A stream's lifetime and its subscribers. One task per stream reads the response."""
