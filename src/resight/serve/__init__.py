"""A gallery as a service: HTTP, one page, one command (`resight serve`)."""
