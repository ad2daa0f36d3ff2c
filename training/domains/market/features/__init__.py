"""What a model sees: functions of a fixed number of trailing bars."""
