"""When the detectors of any circuit or model are known: its layers, as a lab sees them arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import stim

Indices = npt.NDArray[np.int64]


def layer_of_detectors(source: stim.Circuit | stim.DetectorErrorModel) -> Indices:
    """The layer of each detector, counted from 0 without gaps.

    It is the third coordinate, as in Stim's own circuits (x, y, t), if all detectors have three. Else, in a circuit, a
    layer ends where a qubit is measured again, and a detector belongs to the layer of its last measurement. A model
    without such coordinates is one layer.

    Args:
        source: with D detectors.

    Returns:
        int64 (D,).
    """
    coordinates = source.get_detector_coordinates()
    if all(len(coordinates[d]) > 2 for d in range(source.num_detectors)):
        times = np.array([coordinates[d][2] for d in range(source.num_detectors)])
    elif isinstance(source, stim.Circuit):
        times = _times_of_measurement(source)
    else:
        times = np.zeros(source.num_detectors)
    return np.asarray(np.unique(times, return_inverse=True)[1].ravel(), dtype=np.int64)


def _times_of_measurement(circuit: stim.Circuit) -> npt.NDArray[np.float64]:
    """The layer of the last measurement of each detector; 0 for one that compares none."""
    layer, measured = 0, set[int]()
    layers: list[int] = []
    times: list[int] = []
    for instruction in circuit.flattened():
        assert isinstance(instruction, stim.CircuitInstruction)
        if instruction.name == "DETECTOR":
            times.append(max((layers[target.value] for target in instruction.targets_copy()), default=0))
        elif stim.gate_data(instruction.name).produces_measurements:
            for group in instruction.target_groups():
                qubits = {target.qubit_value for target in group if target.qubit_value is not None}
                if qubits & measured:
                    layer, measured = layer + 1, set()
                measured |= qubits
                layers.append(layer)
    return np.array(times, dtype=np.float64)
