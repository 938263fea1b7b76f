"""Digits and a small model of them; a small BERT and its tokenizer."""

import lightning
import numpy as np
import sklearn.datasets
import tokenizers
import torch
import transformers
from torch import nn

images, labels = sklearn.datasets.load_digits(return_X_y=True)
pixels, classes = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels.astype(np.int64))
train_dataset = torch.utils.data.TensorDataset(pixels[:256], classes[:256])
test_dataset = torch.utils.data.TensorDataset(pixels[256:272], classes[256:272])


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


model = make_model()


def make_bert(seed):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=10
    )
    return transformers.BertForSequenceClassification(config)


bert = make_bert(0)
words = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({"[PAD]": 0, "so": 1, "good": 2, "a": 3, "bore": 4, "fun": 5}, "[PAD]")
)
words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")


class DigitsModule(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = make_model()

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
