"""The Open Inference Protocol over gRPC, for the same models and within the same bounds as over HTTP."""
