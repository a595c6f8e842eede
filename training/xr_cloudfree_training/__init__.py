"""Training of the learned models of xr_cloudfree. It imports the library; the library never imports it."""
