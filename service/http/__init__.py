"""What every HTTP route stands on: bounds, problems, middleware."""
