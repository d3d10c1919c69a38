"""Records logits of torchvision's own DeepLabV3 (names, shapes, a few logits): `python tests/goldens/torchvision_networks.py`.

It needs torch and torchvision, which the tests do not.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torchvision

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from golden import golden_image  # noqa: E402
from golden_torch import golden_torch_tensor  # noqa: E402

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CASES = (("deeplabv3_resnet50", 64, 97), ("deeplabv3_resnet101", 65, 64))


def main(out=HERE / "torch"):
    for builder, height, width in CASES:
        name = f"torchvision_{builder.rpartition('_')[2]}_{height}x{width}"
        build = getattr(torchvision.models.segmentation, builder)
        model = build(weights=None, weights_backbone=None, aux_loss=True).eval()
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(golden_torch_tensor(key, s)) for key, s in shapes.items()})
        image = (golden_image(name, height, width) / 255.0 - MEAN) / DEVIATION
        with torch.no_grad():
            images = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
            logits = model.classifier(model.backbone(images)["out"])[0].permute(1, 2, 0).numpy()
        facts = {"system": f"torchvision {torchvision.__version__}", "builder": builder, "height": height, "width": width}
        facts |= {"input": "(golden_image(name, height, width) / 255 - mean) / std", "variables": shapes}
        (pathlib.Path(out) / f"{name}.json").write_text(json.dumps(facts) + "\n")
        np.savez(pathlib.Path(out) / f"{name}.npz", logits=logits, largest=np.abs(logits).max())
        print(name, logits.shape, np.abs(logits).max(), flush=True)
        if len(sys.argv) > 1:
            torch.save(model.state_dict(), f"{sys.argv[1]}/{name}.pth")


if __name__ == "__main__":
    main()
