"""What leaves the domain: ONNX files of trees and of the ensemble."""
