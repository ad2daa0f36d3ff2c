"""The music domain: audio, MIDI and emotion labels, with the families `spectocloud` and `midi_generator`."""
