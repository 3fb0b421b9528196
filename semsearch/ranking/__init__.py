"""The order of hits: pure functions over ids and scores."""
