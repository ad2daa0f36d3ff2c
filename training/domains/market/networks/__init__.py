"""Networks on windows of decisions: recurrent, convolutional, and with attention."""
