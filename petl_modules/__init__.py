"""Parameter-efficient transfer learning of audio and speech Transformers."""

import logging

# SpeechBrain says on import that it cannot save figures, which nobody asked it to do
logging.getLogger("speechbrain.utils.train_logger").addFilter(lambda _: False)
