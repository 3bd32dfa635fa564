"""The pages of the documentation, and what draws their pictures."""
