"""The smallest domain that uses the complete contract: calibration curves of measuring devices.

A folder has one CSV file per device, with pairs (x, y): the device's reading and the true value. `curve` trains one
small network per device (a fan-out, stepped); `boost` fits stumps to all devices together (fitted); the plan node
`blend` weights both. docs/adding-a-domain.md explains every file.
"""
