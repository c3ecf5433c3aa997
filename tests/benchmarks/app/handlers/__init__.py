"""The same four handlers three times: each server binds one of these modules."""
