"""Export a trained run as an ONNX file, which runs without seqbench and torch.

    saved run -> graph.py, the module to trace -> onnx_file.py -> compared in exporting.py -> file

`interface.py` describes the inputs, outputs and state of the file, in the file itself.
"""
