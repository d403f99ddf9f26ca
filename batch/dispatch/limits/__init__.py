"""What bounds requests besides what endpoints allow."""
