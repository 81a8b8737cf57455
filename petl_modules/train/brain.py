"""The Brain that all recipes share."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import speechbrain as sb
import torch
from safetensors.torch import load_file
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import average_checkpoints
from torch import Tensor
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from petl_modules.core.task_model import TaskModel
from petl_modules.data.ready import ReadyBatch, loader_of
from petl_modules.errors import UserError
from petl_modules.tasks.base import Task, padded
from petl_modules.train.checkpoints import Counter
from petl_modules.train.closed import closed_epoch, is_closed
from petl_modules.train.journal import Journal
from petl_modules.train.losses import Losses
from petl_modules.train.periods import Periods, Plan
from petl_modules.train.processes import SharedBatches, mean_over_processes, take_part
from petl_modules.train.progress import Progress
from petl_modules.train.schedules import make_schedule
from petl_modules.train.stopwatch import Stopwatch

SECONDS_UNSAVED = 2.0  # of training that a kill may cost


class PetlBrain(sb.Brain):
    """SpeechBrain's Brain for an adapted model and a task.

    Training is exactly resumable: the order of the data hangs on seed and epoch, and
    every batch has a random state of its own, so that nothing depends on what ran
    before in the same process. The epoch is chosen on the validation set.

    `batch_size` is that of all processes together: each takes its part of the same
    batches, so that their number changes nothing but the time.

    Arguments
    ---------
    task : object
        Of `petl_modules.tasks`.
    task_model : TaskModel
    counter : petl_modules.train.checkpoints.Counter
    journal : petl_modules.train.journal.Journal
        What the run writes down.
    lines : bool
        Whether every epoch gets a line.
    **kwargs
        For `speechbrain.Brain`: hparams, opt_class, checkpointer.
    """

    def __init__(
        self,
        task: Task,
        task_model: TaskModel,
        counter: Counter,
        journal: Journal,
        lines: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(modules={"task": task_model}, **kwargs)
        self.task, self.counter, self.journal = task, counter, journal
        bars = not self.noprogressbar
        self.noprogressbar = True  # bars are ours, not SpeechBrain's
        self.progress = Progress(task.metric, bars, lines)
        self.batches = {}  # how many there are, by stage
        self.task_model = task_model
        self.scheduler = None
        self.train_loss = None  # of the last epoch
        self.losses = None  # of the epoch that runs
        self.right, self.told = None, 0  # clips of it that were told right, and all
        self.seconds = Stopwatch()
        self.saved = 0.0  # when a checkpoint was, by the monotonic clock
        if self.checkpointer is not None:
            saved = {"task_model": task_model, "counter": counter}
            self.checkpointer.add_recoverables({**saved, "seconds": self.seconds})

    # Forward and loss

    def compute_forward(self, batch: PaddedBatch, stage: sb.Stage) -> Any:
        """The head's output of a batch."""
        batch = batch.to(self.device, non_blocking=True)
        if stage == sb.Stage.TRAIN:
            self._seed(self._batch_seed())
        if hasattr(batch, "features"):
            steps = batch.features
            steps = steps if isinstance(batch, ReadyBatch) else padded(steps)
            return self.modules.task(features=steps)
        if stage == sb.Stage.TRAIN:
            self.task.augment(batch)
        return self.modules.task(**self.task.inputs(batch))

    def compute_objectives(
        self, predictions: Any, batch: PaddedBatch, stage: sb.Stage
    ) -> Tensor:
        """The task's loss; keeps predictions when evaluating."""
        loss = self.task.loss(predictions, batch)
        if stage != sb.Stage.TRAIN:
            if not torch.isfinite(loss):  # the very last step may have broken it
                self.refuse_loss(self.step, batch.id)
            self.task.collect(predictions, batch)
            self.weight = self.task.weight(batch)
        elif (right := self.task.right(predictions, batch)) is not None:
            self.right = right if self.right is None else self.right + right
            self.told += len(batch.id)
        return loss

    def refuse_loss(self, step: int, ids: Sequence[str]) -> NoReturn:
        """Stop: a loss that is NaN does not come back."""
        shown = ", ".join(ids[:3])
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        raise UserError(
            f"The loss is not finite (NaN or infinite) at epoch "
            f"{self.counter.current}, step {step}, with the clips {shown}{more}: "
            "lower lr or max_grad_norm, or look at these clips."
        )

    # Optimisation

    def _wrap_distributed(self) -> None:
        """SpeechBrain's hook: the gradients' mean over processes."""
        if not self.distributed_launch:
            return
        for name, module in self.modules.items():
            if not any(p.requires_grad for p in module.parameters()):
                continue
            # without device_ids, by which lengths would go to the GPU too: who asks it
            # for a shape waits for all that it has to do
            self.modules[name] = DistributedDataParallel(
                SyncBatchNorm.convert_sync_batchnorm(module),
                find_unused_parameters=self.find_unused_parameters,
            )

    def init_optimizers(self) -> None:
        """AdamW, with groups that weight decay spares, and the schedule."""
        groups = self.task_model.parameter_groups(self.hparams.decay_all)
        fused = {"fused": True} if self.on_gpu else {}
        self.optimizer = self.opt_class(groups, **fused)
        self.optimizers_dict = {"optimizer": self.optimizer}
        self.scheduler = make_schedule(
            self.optimizer,
            self.plan.steps,
            self.hparams.scheduler,
            self.hparams.warmup,
            self.hparams.warmup_steps,
            self.hparams.hold,
        )
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)
            self.checkpointer.add_recoverable("scheduler", self.scheduler)

    @property
    def on_gpu(self) -> bool:
        """Whether it trains on a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def num_batches(self) -> int:
        """Batches of the epoch, or of the period between two validations."""
        return len(self.train_sampler)

    def make_dataloader(
        self,
        dataset: DynamicItemDataset,
        stage: sb.Stage,
        ckpt_prefix: str | None = "dataloader-",
        **loader_kwargs: Any,
    ) -> DataLoader:
        """As SpeechBrain's; threads read ahead."""
        if stage == sb.Stage.TRAIN:
            loader_kwargs = self._train_loader_specifics(dataset, loader_kwargs)
        loader = loader_of(dataset, pin_memory=self.on_gpu, **loader_kwargs)
        self.batches[stage] = len(loader)
        if self.checkpointer is not None and ckpt_prefix is not None:
            self.checkpointer.add_recoverable(ckpt_prefix + stage.name, loader)
        return loader

    def _train_loader_specifics(
        self, dataset: DynamicItemDataset, loader_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """SpeechBrain's hook: batches in an order that hangs on seed and epoch."""
        together = torch.distributed.is_initialized()
        knobs, batches = self.hparams, loader_kwargs["batch_sampler"]
        factor = self.grad_accumulation_factor
        self.plan = Plan.of(
            -(-len(batches) // factor),  # the last group of an epoch may be short
            knobs.number_of_epochs,
            knobs.number_of_steps,
            knobs.evaluate_every,
        )
        if knobs.number_of_steps or knobs.evaluate_every:
            batches = Periods(batches, self.plan, factor)
        self.train_sampler = loader_kwargs["batch_sampler"] = SharedBatches(
            batches,
            torch.distributed.get_rank() if together else 0,
            torch.distributed.get_world_size() if together else 1,
        )
        return loader_kwargs

    def fit(
        self,
        epoch_counter: Counter,
        train_set: DataLoader,
        valid_set: DynamicItemDataset,
        valid_loader_kwargs: dict[str, Any],
        judge_start: bool = False,
    ) -> None:
        """As SpeechBrain's, given a data loader for training.

        With `judge_start` the model as it starts counts as epoch 0, and is what comes
        out if no epoch is better.
        """
        self.judge_start, epoch_counter.limit = judge_start, self.plan.periods
        self.valid_loader = self.make_dataloader(
            valid_set, sb.Stage.VALID, ckpt_prefix=None, **valid_loader_kwargs
        )
        super().fit(epoch_counter, train_set, self.valid_loader)

    def fit_batch(self, batch: PaddedBatch) -> None:
        """One batch; the last group of an epoch steps even if it is short."""
        factor = self.grad_accumulation_factor
        first = (self.step - 1) // factor * factor  # batches before this group
        group = min(factor, self.num_batches - first)
        should_step = self.step - first == group
        shared = self.train_sampler
        if shared.processes > 1:
            take_part(self.task_model, shared.mine(self.step))
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            if shared.processes > 1:
                loss = loss * shared.share(self.step, self.task.weight(batch), loss)
            self.scaler.scale(loss / group).backward()
        if should_step:
            self.optimizers_step()
        self.losses.add(loss.detach(), self.step, batch.id)
        self.progress.step(self.losses.mean if self.step > 1 else None)

    def evaluate_batch(self, batch: PaddedBatch, stage: sb.Stage) -> Tensor:
        """The loss of one batch."""
        loss = super().evaluate_batch(batch, stage)
        self.progress.step()
        return loss

    def update_average(self, loss: Tensor | None, avg_loss: float) -> float:
        """SpeechBrain's hook: the mean so far, of training's losses as far as they have
        been looked at."""
        if loss is None:
            return self.losses.mean
        self.seen += self.weight  # in the mean over clips, whatever the batches
        return avg_loss + (float(loss) - avg_loss) * self.weight / self.seen

    def optimizers_step(self) -> None:
        """Clip the gradients of all groups together, then step."""
        self.scaler.unscale_(self.optimizer)
        self.task_model.before_step()
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        if self.max_grad_norm and self.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else fp16's were too large: no step
            self.scheduler.step()
            self.optimizer_step += 1
            self.task_model.after_step(self.scheduler.last_epoch, self.plan.steps)
        self.optimizer.zero_grad(set_to_none=True)

    # Stages

    def on_fit_start(self) -> None:
        """Take up the last checkpoint, then start the clock."""
        self.checkpointer.make_ready()
        super().on_fit_start()
        self.seconds.taken_up = True
        self.journal.begin()
        self.progress.begin(
            self.counter.limit,
            self.best_so_far(),
            f"Training: {self.batches[sb.Stage.TRAIN]} batches an epoch, at most "
            f"{self.counter.limit} epochs, on {self.device}.",
        )
        if self.judge_start and not self.checkpointer.list_checkpoints():
            self._fit_valid(self.valid_loader, epoch=0, enable=False)

    def best_so_far(self) -> tuple[float, int, float] | None:
        """Error, epoch and metric of the best epoch that a run that was interrupted
        left."""
        metas = [c.meta for c in self.checkpointer.list_checkpoints()]
        known = [meta for meta in metas if "metric" in meta]
        if not known:
            return None
        best = min(known, key=lambda meta: meta["error"])
        return best["error"], best["epoch"], best["metric"]

    def _fit_train(self, train_set: DataLoader, epoch: int, enable: bool) -> None:
        """SpeechBrain's loop, or on features that are ready one of our own."""
        if is_closed(self, train_set):
            closed_epoch(self, train_set, epoch)
        else:
            super()._fit_train(train_set=train_set, epoch=epoch, enable=enable)

    def _fit_valid(self, valid_set: DataLoader, epoch: int, enable: bool) -> None:
        """After every `valid_epochs` epochs, and after the last one."""
        if epoch % self.hparams.valid_epochs == 0 or epoch == self.counter.limit:
            super()._fit_valid(valid_set=valid_set, epoch=epoch, enable=enable)
        else:
            self.progress.epoch(epoch, {"loss": self.train_loss})

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the predictions of the stage before."""
        self.task.start(final=stage == sb.Stage.TEST)
        self.seen = 0
        name = "test" if epoch is None else self.progress.name(epoch)
        done = self.step if stage == sb.Stage.TRAIN else 0
        self.progress.start(name, self.batches.get(stage, 0), done)
        if stage == sb.Stage.TRAIN:
            self.right, self.told = None, 0
            self.losses = Losses(self.avg_train_loss, self.refuse_loss)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Log, and keep the best epoch and the last one."""
        if stage == sb.Stage.TRAIN:
            self.losses.look()
            self.train_loss = mean_over_processes(self.losses.mean, self.device)
            return
        loss = {"loss": stage_loss} if self.task.held_out_loss else {}
        self.metrics = {**loss, **self.task.metrics()}
        self.progress.stop()
        if stage == sb.Stage.TEST:
            return
        error = self.task.error(self.metrics, stage_loss)
        self.counter.update_metric(error)
        lr = self.optimizer.param_groups[0]["lr"]
        trained = None if self.train_loss is None else {"loss": self.train_loss}
        if trained is not None and self.right is not None:
            accuracy = float(self.right) / self.told
            trained["accuracy"] = mean_over_processes(accuracy, self.device)
        self.journal.log_stats(
            {"epoch": epoch, "lr": lr}, train_stats=trained, valid_stats=self.metrics
        )
        error = error if self.hparams.choose == "best" else -epoch
        self.progress.epoch(epoch, trained, self.metrics, error)
        if self._is_worth_keeping(error, epoch):
            self.saved = time.monotonic()
            metric = self.metrics[self.task.metric]
            self.checkpointer.save_and_keep_only(
                meta={"error": error, "epoch": epoch, "metric": metric},
                min_keys=["error"],
                num_to_keep=self.hparams.average,
            )

    def _is_worth_keeping(self, error: float, epoch: int) -> bool:
        """Whether an epoch is saved: where epochs take milliseconds, only the best ones
        and the last, and one every few seconds. Who goes on from the one before comes
        to the same."""
        if torch.distributed.is_initialized() or epoch == self.counter.limit:
            return True
        found = self.checkpointer.list_checkpoints()
        better = [c for c in found if c.meta.get("error", math.inf) < error]
        late = time.monotonic() - self.saved > SECONDS_UNSAVED
        return late or self.counter.should_stop or len(better) < self.hparams.average

    def on_evaluate_start(
        self, max_key: str | None = None, min_key: str | None = None
    ) -> None:
        """Take up the best epoch, or the mean of the best ones' weights."""
        super().on_evaluate_start(max_key, min_key)
        best = self.checkpointer.find_checkpoints(
            min_key=min_key, max_num_checkpoints=self.hparams.average
        )
        if len(best) > 1:
            mean = average_checkpoints(best, "task_model", tensors_of)
            self.task_model.load_state(mean)

    def _should_save_intra_epoch_ckpt(
        self, last_ckpt_time: float, steps_since_ckpt: int
    ) -> bool:
        """Only between optimizer steps: accumulated gradients are not saved."""
        due = super()._should_save_intra_epoch_ckpt(last_ckpt_time, steps_since_ckpt)
        return due and self.step % self.grad_accumulation_factor == 0

    def _save_intra_epoch_ckpt(self) -> None:
        """Not before the last loss has been looked at."""
        self.losses.look()
        self.avg_train_loss = self.losses.mean
        super()._save_intra_epoch_ckpt()

    def _seed(self, value: int) -> None:
        """As torch.manual_seed, which looks at every kind of device there may be."""
        torch.default_generator.manual_seed(value)
        if self.on_gpu:
            torch.cuda.manual_seed(value)

    def _batch_seed(self) -> int:
        rank = getattr(self, "rank", 0) or 0
        place = self.counter.current * 1_000_003 + self.step
        return (self.hparams.seed * 7_919 + place) * 1_009 + rank


def tensors_of(path: str | Path, map_location: Any) -> dict[str, Tensor]:
    """What a TaskModel saved; SpeechBrain's name for the device."""
    return load_file(path, str(map_location))
