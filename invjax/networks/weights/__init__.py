"""From weight files to parameters.

| module | subject |
|---|---|
| `pretrained` | finds a network's weights, converts, verifies and restores them |
| `sources` | the known weight files, pinned by digest in sources.toml |
| `formats` | a file of any known format -> parameters |
| `file_kinds` | what a file is, by its contents |
| `readers`, `torch_format` | a file of one format -> arrays by the file's names |
| `pickles` | pickles as inert data |
| `state_dicts` | a network's tensors in whatever is around them |
| `caffe_format`, `matconvnet_format` | the same for Caffe and .mat files |
| `conversion`, `torch_layouts`, `caffe_layouts` | these names and axes -> a table's |
| `batch_norm` | what batch normalisation knew, which is folded into convolutions |
| `preprocessing` | from an image to the input of a network |
| `preprocessing_choice` | which one belongs to weights whose file does not say |
| `forward_check` | a forward pass that verifies weights and preprocessing together |
| `checkpoints` | converted weights on disk |
| `convert` | what the command `invjax convert` does |
"""
