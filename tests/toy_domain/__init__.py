"""The smallest domain that uses all of the contract: calibration curves of measuring devices.

A folder of CSV files, one a device, holds pairs (x, y): what the device showed, and what was true. `curve` trains one
small network a device (a fan-out, stepped); `boost` fits stumps to all devices together (fitted); the node `blend`
weighs both. docs/adding-a-domain.md explains every file.
"""
