"""The 80 categories of COCO, which have ids from 1 to 90.

Source: the annotations of COCO 2017 (CC BY 4.0). Ten ids are not in use; checkpoints of
torchvision have an output for these too.
"""

__all__ = ["COCO_NAMES"]

_BY_ID = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,"
    "fire hydrant,,stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,"
    "bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,"
    "snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,"
    "orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,"
    "dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,"
    "toothbrush"
)

# Category id -> name.
COCO_NAMES = {
    number: name for number, name in enumerate(_BY_ID.split(","), start=1) if name
}
