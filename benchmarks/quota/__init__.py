"""How much of a service's quota clients use, and how many of their calls are throttled."""
