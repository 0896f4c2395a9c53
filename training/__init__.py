"""Scripts that train what the package ships; not part of the wheel."""
