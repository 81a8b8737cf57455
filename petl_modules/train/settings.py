"""The knobs that training itself reads: kind, default and meaning of each.

Those of the backbone, method, head and task stand in the signatures of what reads them,
and those of a data set in the signature of the recipe's `prepare` function.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from petl_modules.kinds import (
    Count,
    Fraction,
    Items,
    NotNegative,
    Positive,
    PositiveInt,
    Probability,
    Range,
    Rate,
)
from petl_modules.knobs import Section
from petl_modules.train.schedules import Schedule

Seed = Annotated[int, Range(0, 2**32 - 1)]  # as wide as numpy's
Betas = Annotated[list[Probability], Items(2, 2)]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Experiment(Section):
    """What is run, on what, and where it goes.

    Arguments
    ---------
    dataset : str or None
        The data set's name in tables.
    method : str
        The PETL method.
    seed : int
        Draws what is random: initial weights, order of clips, augmentation, few shots.
    data_folder : str or None
        The data set's folder, as it is distributed.
    output_folder : str
        Where results go, in a folder for each method, fold and seed.
    fold : int or None
        One fold of the protocol; null runs all of them.
    folds : list of int or None
        The folds of the protocol; null where there are none.
    few_shot : int or None
        Training clips per class, drawn with the seed; null takes all.
    few_shot_draw : str
        How they are drawn: random, or the first by their names.
    skip_broken : bool
        Whether clips that cannot be read are left out, instead of refused.
    num_classes : int or None
        The number of classes, for describe alone: a run counts them in the data.
    test : bool
        Whether the test set is looked at; a search does not.
    wandb : str or None
        Whether Weights & Biases is logged to as well, at once or later.
    wandb_project : str
        Its project.
    wandb_entity : str or None
        The user or team whose project it is; null for one's own.
    wandb_name : str or None
        The run's name there; null for the name of its folder.
    wandb_tags : list of str
        Tags of the run there.
    """

    dataset: str | None = None
    method: str = "bottleneck"
    seed: Seed = 0
    data_folder: str | None = None
    output_folder: str = "results"
    fold: int | None = None
    folds: Annotated[list[int], Items(1, distinct=True)] | None = None
    few_shot: PositiveInt | None = None
    few_shot_draw: Literal["random", "first"] = "random"
    skip_broken: bool = False
    num_classes: PositiveInt | None = None
    test: bool = True
    wandb: Literal["online", "offline"] | None = None
    wandb_project: str = "petl"
    wandb_entity: str | None = None
    wandb_name: str | None = None
    wandb_tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Training(Section):
    """How long and by which steps.

    Arguments
    ---------
    number_of_epochs : int
        Epochs of training; 0 evaluates the model as it starts.
    number_of_steps : int or None
        Optimizer steps of training, in the place of epochs.
    evaluate_every : int or None
        Optimizer steps after which the validation set is looked at; null for epochs.
    lr : float or None
        The highest learning rate; null for the method's own.
    betas : list of float
        AdamW's memory of gradients and of their squares.
    eps : float
        What AdamW adds to the root of the squares.
    weight_decay : float
        AdamW's, of matrices; biases, norms, prompts and prefixes are spared.
    decay_all : bool
        Whether weight decay spares nothing.
    scheduler : str
        How the learning rate falls after its warm-up: as a cosine, along a line, held
        and then along a line (hold), by the root of the steps, or not at all.
    warmup : float
        The part of all steps in which the learning rate rises from zero.
    warmup_steps : int or None
        The steps in which it does, in the place of a part.
    hold : float
        Under scheduler=hold, the part of all steps after which it begins to fall.
    head_start_epochs : int
        Epochs of a linear probe, whose head and last norm the method starts from.
    head_start_lr : float
        The learning rate of that probe.
    head_start_counts : bool
        Whether the probe counts as epoch 0, which comes out if no epoch is better.
    choose : str
        Which epoch comes out: the best by the validation set, or the last.
    average : int
        The number of such epochs whose weights are averaged in the end.
    valid_epochs : int
        Validation comes after every so many epochs, and after the last.
    patience : int or None
        Validations without a better one after which training stops; null: never.
    """

    number_of_epochs: Count = 20
    number_of_steps: PositiveInt | None = None
    evaluate_every: PositiveInt | None = None
    lr: Rate | None = None
    betas: Betas = field(default_factory=lambda: [0.9, 0.98])
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Range(0, 1000)] = 0.1
    decay_all: bool = False
    scheduler: Schedule = "cosine"
    warmup: Fraction = 0.0
    warmup_steps: Count | None = None
    hold: Fraction = 0.4
    head_start_epochs: Count = 0
    head_start_lr: Rate = 0.001
    head_start_counts: bool = False
    choose: Literal["best", "last"] = "best"
    average: PositiveInt = 1
    valid_epochs: PositiveInt = 1
    patience: PositiveInt | None = None


@dataclass(frozen=True)
class Machine(Section):
    """On what it runs, how precisely, and what is kept for going on.

    Arguments
    ---------
    device : str or None
        The device, such as cpu or cuda:1; null for the first GPU, or else the CPU.
    precision : str
        The precision of training; what trains is always kept in fp32.
    eval_precision : str
        The precision of evaluation.
    base_precision : str or None
        What frozen weights, and what flows through them, are held in; null is bf16 on a
        GPU where precision is bf16, and else fp32. Under int8 and nf4 the layers'
        weights are packed by bitsandbytes, and all else is bf16.
    tf32 : bool
        Whether float32 products on a GPU read their factors with 10 bits.
    compile : bool
        Whether every layer is compiled, which takes a minute at the start.
    gradient_checkpointing : bool
        Whether each layer is computed again in the backward pass, to save memory.
    grad_accumulation_factor : int
        Batches whose gradients are summed for one step.
    max_grad_norm : float
        The norm to which gradients are clipped; 0 clips nothing.
    ckpt_interval_minutes : float
        Minutes between two checkpoints within an epoch; 0 for none.
    ckpt_interval_steps : int
        Steps between two checkpoints within an epoch, in the place of minutes.
    noprogressbar : bool
        Whether progress bars are left out.
    processes : int
        Processes on this machine that train together, each on a GPU of its own; under
        torchrun, its own number counts.
    distributed_backend : str
        How processes that train together talk to each other.
    """

    device: str | None = None
    precision: Precision = "fp32"
    eval_precision: Precision = "fp32"
    base_precision: Literal["fp32", "bf16", "int8", "nf4"] | None = None
    tf32: bool = True
    compile: bool = False
    gradient_checkpointing: bool = False
    grad_accumulation_factor: PositiveInt = 1
    max_grad_norm: NotNegative = 5.0
    ckpt_interval_minutes: NotNegative = 10
    ckpt_interval_steps: Count = 0
    noprogressbar: bool = False
    processes: Annotated[int, Range(1, 256)] = 1
    distributed_backend: Literal["nccl", "gloo"] = "nccl"
