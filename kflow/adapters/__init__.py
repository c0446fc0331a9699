"""The step kinds, one module each, and the table of them.

A third-party kind is an entry point in the group ``kflow.adapters``; see ``kflow.registry``.
"""

BUILTIN = {
    "build_model": "kflow.adapters.build_model:BuildModel",
    "encode_labels": "kflow.adapters.encode_labels:EncodeLabels",
    "evaluate": "kflow.adapters.evaluate:Evaluate",
    "fetch": "kflow.adapters.fetch:Fetch",
    "load_model": "kflow.adapters.load_model:LoadModel",
    "normalize": "kflow.adapters.normalize:Normalize",
    "plot_history": "kflow.adapters.plot_history:PlotHistory",
    "plot_model": "kflow.adapters.plot_model:PlotModel",
    "predict": "kflow.adapters.predict:Predict",
    "register_objects": "kflow.adapters.register_objects:RegisterObjects",
    "save_model": "kflow.adapters.save_model:SaveModel",
    "slice_hdf5": "kflow.adapters.slice_hdf5:SliceHdf5",
    "train": "kflow.adapters.train:Train",
}
