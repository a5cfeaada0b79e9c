"""The async half: the only place that awaits. One task per stream reads the response."""
