# The tutorial notebooks in their source form: code once, words in each language beside it.
# scripts/notebooks/make.py makes notebooks/tutorial.ipynb and notebooks/tutorial.zh-CN.ipynb of it.

# %% [markdown] lang="en"
# # Optimising a network, step by step
#
# [简体中文](tutorial.zh-CN.ipynb)
#
# Fashion-MNIST is 70,000 small grey pictures of ten kinds of garment. In this notebook a network learns to tell them
# apart: first in a loop that you see whole, then with this package, which is that loop as software. After that you swap
# its parts one by one: the loss, the optimiser, the learning rate, the schedule.
#
# You need some Python and a first idea of PyTorch. Lightning and Hydra, on which the package stands, are explained
# where they appear. From top to bottom it takes a few minutes on two processor cores. Each section has one
# idea, one picture, and one thing to try; after a change, run the cell again with Shift and Enter.

# %% [markdown] lang="zh-CN"
# # 一步一步优化一个网络
#
# [English](tutorial.ipynb)
#
# Fashion-MNIST 是 70,000 张小灰度图，共有十类衣物。在这个笔记本里，我们要让一个网络学会分辨它们：
# 先用一个从头到尾都看得见的循环，再用本包，也就是把这个循环做成了软件。然后逐个更换其中的部件：
# 损失函数、优化器、学习率、学习率调度。
#
# 你需要会一点 Python，对 PyTorch 有初步的印象。本包建立在 Lightning 和 Hydra 之上，用到哪里就讲到哪里，不必事先学过。
# 在两个处理器核心上，从头跑到尾要几分钟。每一节都只讲一个道理，配一张图，再给一件可以动手试的事；
# 改过一个单元格之后，按 Shift 加 Enter 重新运行它。

# %% [markdown] lang="en"
# ## Getting ready
#
# This cell installs the package where it is missing, as on Colab. In a checkout of the repository, `%pip install ..`
# installs that instead.

# %% [markdown] lang="zh-CN"
# ## 准备
#
# 如果还没有安装本包（例如在 Colab 上），这个单元格会先安装它。如果你手上是仓库的源码，用 `%pip install ..` 安装源码即可。

# %%
try:
    import fmnist_lit
except ImportError:
    # %pip install --quiet fmnist_lit
    import fmnist_lit

# %%
import os

import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.nn import functional as F

plt.style.use("tableau-colorblind10")
plt.rcParams |= {"figure.dpi": 80, "figure.constrained_layout.use": True, "axes.grid": True, "grid.alpha": 0.3}

# %% [markdown] lang="en"
# Three settings make the whole notebook longer or shorter. `auto` takes the real Fashion-MNIST from the folder in
# `$FMNIST_DATA_DIR`, downloads it if it is not there, and draws a stand-in if it cannot; every run says which of the
# two its figures are of.

# %% [markdown] lang="zh-CN"
# 下面三个参数决定整个笔记本跑多久。`auto` 表示从 `$FMNIST_DATA_DIR` 所指的文件夹读取真正的 Fashion-MNIST，没有就下载；
# 下载不了，就画一份替代数据。每次训练都会注明用的是哪一种。

# %% tags=["parameters"]
SOURCE = "auto"
TRAIN_SIZE = 55_000
EPOCHS = 3

# %% [markdown] lang="en"
# ## Data
#
# The images come in three piles. The network learns from the *training* images. We compare and choose by the
# *validation* images, which it never learns from. The *test* images are read once, at the end of a run, and nothing is
# ever chosen by them: a figure by which you have chosen is always a little too good. (The original tutorial looks at the
# test images after every epoch; here 5,000 of the 60,000 training images play that part.)
#
# In Lightning, which images are in which pile is the business of a **DataModule**, a class that answers this one
# question.

# %% [markdown] lang="zh-CN"
# ## 数据
#
# 图片分成三堆。网络从**训练集**学习；我们用**验证集**来比较和挑选，网络从不向它学习；**测试集**只在每次训练的最后读一次，
# 绝不用来挑选：拿一个数字来挑选，这个数字就总会偏高一点。（原版教程每个 epoch 之后都看测试集；
# 这里从 60,000 张训练图片里留出 5,000 张来充当这个角色。）
#
# 在 Lightning 里，哪些图片属于哪一堆由 **DataModule** 负责，这个类只回答这一个问题。

# %%
from fmnist_lit.data import FashionMNISTDataModule

data = FashionMNISTDataModule(SOURCE, os.environ.get("FMNIST_DATA_DIR", "data"), train_size=TRAIN_SIZE)
data.setup()
print(f"{data.dataset}: {len(data.train_images)} training, {len(data.val_images)} validation, ", end="")
print(f"{len(data.test_images)} test images of shape {tuple(data.train_images.pixels.shape[1:])}")

# %%
pixels, labels = data.train_images.pixels, data.train_images.labels
figure, axes = plt.subplots(1, 10, figsize=(10, 5))
for index, (ax, name) in enumerate(zip(axes, data.classes)):
    ax.imshow(pixels[labels == index][:5].reshape(-1, 28), cmap="gray_r")
    ax.set_title(name, fontsize=10)
    ax.axis("off")
plt.show()

# %% [markdown] lang="en"
# **Try it**: show other images, `[5:10]`. Which shirts would you take for a T-shirt, a pullover or a coat? The
# network will make the same mistakes.

# %% [markdown] lang="zh-CN"
# **试一试**：换成 `[5:10]`，看看别的图片。哪些衬衫会被你看成 T 恤、套头衫或外套？网络也会犯同样的错。

# %% [markdown] lang="en"
# ## Model
#
# The tutorial's network is three matrices. An image is 784 numbers $x$; each layer multiplies them by its weights,
# adds a bias, and, but for the last, sets what is negative to zero:
#
# $$ h_1 = \mathrm{ReLU}(W_1 x + b_1), \qquad h_2 = \mathrm{ReLU}(W_2 h_1 + b_2), \qquad z = W_3 h_2 + b_3 $$
#
# The ten numbers $z$ are the *logits*, one a class. The softmax turns them into probabilities:
#
# $$ p_c = \frac{e^{z_c}}{\sum_{k=1}^{10} e^{z_k}} $$

# %% [markdown] lang="zh-CN"
# ## 模型
#
# 教程里的网络就是三个矩阵。一张图片是 784 个数 $x$ ，每一层乘以权重，加上偏置，除最后一层之外，再把负数变成零：
#
# $$ h_1 = \mathrm{ReLU}(W_1 x + b_1), \qquad h_2 = \mathrm{ReLU}(W_2 h_1 + b_2), \qquad z = W_3 h_2 + b_3 $$
#
# 最后得到的十个数 $z$ 叫作 logits，每个类别一个。softmax 把它们变成概率：
#
# $$ p_c = \frac{e^{z_c}}{\sum_{k=1}^{10} e^{z_k}} $$


# %%
def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


network = make_network()
print(f"{sum(p.numel() for p in network.parameters()):,} parameters")

# %%
image = data.scale(pixels[:1])
with torch.no_grad():
    probabilities = network(image).softmax(1)[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), width_ratios=(1, 2.4))
left.imshow(image[0, 0], cmap="gray_r")
left.axis("off")
right.barh(data.classes, probabilities)
right.set(xlim=(0, 1), xlabel="probability, before any training")
right.invert_yaxis()
plt.show()

# %% [markdown] lang="en"
# Its weights are random, so it thinks all ten about equally likely. Training has to change that.
#
# **Try it**: write `100 * network(image)` in place of `network(image)`. Larger logits are more certain, not more right.

# %% [markdown] lang="zh-CN"
# 权重是随机的，所以在它看来十个类别的可能性差不多。训练就是要改变这一点。
#
# **试一试**：把图里的 `network(image)` 换成 `100 * network(image)`。logits 变大，只是更自信，并不是更正确。

# %% [markdown] lang="en"
# ## Hyper-parameters
#
# What the network learns are *parameters*; what you choose for it are *hyper-parameters*. Three are enough to begin
# with:
#
# - **epochs**: how many times it sees all training images;
# - **batch size**: how many images it looks at before it changes its weights;
# - **learning rate**: how far it changes them.
#
# Each *step* goes down the slope of the loss $L$, with the learning rate $\eta$ as the factor between slope and step:
#
# $$ \theta \leftarrow \theta - \eta \frac{\partial L}{\partial \theta} $$
#
# For one weight and a loss that is a parabola, the learning rate alone decides what happens:

# %% [markdown] lang="zh-CN"
# ## 超参数
#
# 网络自己学出来的叫**参数**，由你替它选定的叫**超参数**（hyper-parameter）。一开始有三个就够了：
#
# - **训练轮数**（epochs）：所有训练图片看几遍；
# - **批量大小**（batch size）：看多少张图片才改一次权重；
# - **学习率**（learning rate）：每次改多少。
#
# 每一**步**（step）都沿着损失 $L$ 的斜坡往下走，学习率 $\eta$ 就是斜率与步长之间的系数：
#
# $$ \theta \leftarrow \theta - \eta \frac{\partial L}{\partial \theta} $$
#
# 假如只有一个权重，损失是一条抛物线，那么结果如何全看学习率：

# %%
BATCH_SIZE = 64
LEARNING_RATE = 1e-3

grid = torch.linspace(-1.6, 1.6, 100)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
for ax, rate in zip(axes, (0.05, 0.4, 1.05)):
    path = [-1.0]
    for _ in range(8):
        path.append(path[-1] - rate * 2 * path[-1])
    path = torch.tensor(path)
    ax.plot(grid, grid**2, color="#bbb")
    ax.plot(path, path**2, "o-")
    ax.set(title=f"learning rate {rate}", xlabel="weight", xlim=(-1.7, 1.7), ylim=(-0.1, 2.5))
axes[0].set_ylabel("loss")
plt.show()

# %% [markdown] lang="en"
# Too small, and it is on its way for ever. Too large, and each step lands higher than the last: the run *diverges*.
#
# **Try it**: which is the largest rate that still arrives here? What happens at exactly `1.0`?

# %% [markdown] lang="zh-CN"
# 太小，永远在路上；太大，一步比一步高，训练就**发散**（diverge）了。
#
# **试一试**：在这里，还能走到底的学习率最大是多少？正好取 `1.0` 会怎样？

# %% [markdown] lang="en"
# ## The loop
#
# All of training is in `train_loop`, five lines that every PyTorch program has in some form: what does the network say,
# how wrong is that, which way is down, one step, forget the slope. `test_loop` only looks: no slope, no step.

# %% [markdown] lang="zh-CN"
# ## 训练循环
#
# 训练的全部内容就在 `train_loop` 的五行里，每个 PyTorch 程序都有这五行，只是写法不同：网络怎么回答，错了多少，
# 哪边是下坡，走一步，忘掉这次的斜率。`test_loop` 则只看不动：不求斜率，也不迈步。

# %%
from torch.utils.data import DataLoader, TensorDataset

train_set = TensorDataset(data.scale(data.train_images.pixels), data.train_images.labels)
val_set = TensorDataset(data.scale(data.val_images.pixels), data.val_images.labels)
train_batches, val_batches = DataLoader(train_set, batch_size=BATCH_SIZE), DataLoader(val_set, batch_size=1000)

loss_function = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
step_losses = []


def train_loop():
    network.train()
    for images, labels in train_batches:
        logits = network(images)
        loss = loss_function(logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step_losses.append(loss.item())


def test_loop():
    network.eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for images, labels in val_batches:
            logits = network(images)
            loss += len(labels) * loss_function(logits, labels).item()
            correct += (logits.argmax(1) == labels).sum().item()
    return correct / len(val_set), loss / len(val_set)


# %%
by_hand = []
for epoch in range(1, EPOCHS + 1):
    train_loop()
    accuracy, loss = test_loop()
    by_hand.append((accuracy, loss))
    print(f"epoch {epoch}: validation accuracy {100 * accuracy:.2f} %, average loss {loss:.4f}")

# %%
smooth = torch.tensor(step_losses).unfold(0, min(50, len(step_losses)), 1).mean(1)
figure, ax = plt.subplots(figsize=(7, 2.8))
ax.plot(step_losses, color="#bbb", linewidth=0.5, label="of each batch")
ax.plot(range(len(step_losses) - len(smooth), len(step_losses)), smooth, label="average of the last 50")
ax.set(xlabel="step", ylabel="loss")
ax.legend()
plt.show()

# %% [markdown] lang="en"
# Each batch is other images, so the loss jitters while it falls.
#
# **Try it**: comment out `optimizer.zero_grad()`, make a new network and a new optimiser, and run the loop again. The
# slopes then add up, and it behaves as if it had momentum without end.

# %% [markdown] lang="zh-CN"
# 每个批次的图片都不一样，所以损失一边下降一边抖动。
#
# **试一试**：把 `optimizer.zero_grad()` 注释掉，重新建一个网络和一个优化器，再跑一遍循环。斜率会越积越多，
# 就好像有了一个永远不消失的动量。

# %% [markdown] lang="en"
# ## Lightning: the loop without the loop
#
# As a program grows, its loop fills with things that are the same everywhere: devices, precision, logging, checkpoints,
# a progress bar. **Lightning** takes it apart:
#
# | | what it is | by hand it was |
# | --- | --- | --- |
# | **LightningModule** | the model, what its loss is, which optimiser moves it | `network`, `loss_function`, `optimizer` |
# | **DataModule** | which images train, validate, test | `train_batches`, `val_batches` |
# | **Trainer** | the loop itself, with everything that is the same everywhere | the two `for` |
#
# You write the first two; the third is there. `training_step` returns a loss, and the Trainer does the other three
# lines.

# %% [markdown] lang="zh-CN"
# ## Lightning：不写循环的循环
#
# 程序越写越大，循环里就会塞满到处都一样的东西：设备、精度、日志、检查点、进度条。**Lightning** 把它拆成三块：
#
# | | 是什么 | 手写时对应 |
# | --- | --- | --- |
# | **LightningModule** | 模型、损失怎么算、用哪个优化器 | `network`、`loss_function`、`optimizer` |
# | **DataModule** | 哪些图片用来训练、验证、测试 | `train_batches`、`val_batches` |
# | **Trainer** | 循环本身，以及所有到处都一样的东西 | 那两个 `for` |
#
# 前两样由你来写，第三样是现成的。`training_step` 返回损失，另外三行由 Trainer 去做。

# %%
import logging
import warnings

from lightning.pytorch import LightningModule, Trainer

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class LitNetwork(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = make_network()

    def training_step(self, batch, batch_index):
        images, labels = batch
        return loss_function(self.network(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LEARNING_RATE)


module = LitNetwork()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet).fit(module, train_batches)


# %%
def largest_difference(weights):
    return max((weights[name] - weight).abs().max().item() for name, weight in network.state_dict().items())


print("largest difference of any weight:", largest_difference(module.network.state_dict()))

# %% [markdown] lang="en"
# Not a similar network: the same one, to the last bit. Lightning has no opinion on what is learnt; it only turns the
# crank.
#
# **Try it**: take the `quiet` ones out, one at a time, and see what a Trainer does by itself.

# %% [markdown] lang="zh-CN"
# 不是相似的网络，而是一模一样，连最后一个比特都相同。Lightning 并不过问学什么，它只负责摇动曲柄。
#
# **试一试**：把 `quiet` 里的选项逐个去掉，看看 Trainer 自己会做些什么。

# %% [markdown] lang="en"
# ## The same with this package
#
# `fmnist_lit.train()` is such a LightningModule, such a DataModule and a Trainer, ready made. Without a word it
# trains the network above, with the loss, optimiser and numbers above. Here we say only which images to take, how
# long to train, and that they should come in the order of the file, as they did in our loop.

# %% [markdown] lang="zh-CN"
# ## 用本包做同样的事
#
# `fmnist_lit.train()` 就是现成的 LightningModule、DataModule 加上 Trainer。什么都不说，它就按上面的损失函数、
# 优化器和超参数训练上面的网络。这里只交代三件事：用哪些图片，训练多久，以及像我们的循环那样，按文件里的顺序来。

# %%
DATA = [f"data={SOURCE}", f"data.train_size={TRAIN_SIZE}"]

run = fmnist_lit.train(*DATA, f"trainer.max_epochs={EPOCHS}", "data.shuffle=false", "trainer.accelerator=cpu")
run

# %%
for epoch, (accuracy, loss), row in zip(range(1, EPOCHS + 1), by_hand, run.metrics):
    print(f"epoch {epoch}: by hand {100 * accuracy:.2f} %, {loss:.4f}; ", end="")
    print(f"by the package {100 * row['val_accuracy']:.2f} %, {row['val_loss']:.4f}")

checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
weights = {name.removeprefix("model."): weight for name, weight in checkpoint["state_dict"].items()}
print("largest difference of any weight:", largest_difference(weights))

# %% [markdown] lang="en"
# The same figures and the same bits, a third time. What you get besides is in
# `run.folder`: `results.json`, `metrics.csv` with a row an epoch, checkpoints, the whole configuration, and events for
# TensorBoard (`%load_ext tensorboard`, then `%tensorboard --logdir outputs`).
#
# A run can go on. `resume` takes up its last checkpoint, and the result is the one of a run that never stopped:

# %% [markdown] lang="zh-CN"
# 第三次得到同样的数字、同样的比特。除此之外，`run.folder` 里还有：
# `results.json`，每个 epoch 一行的 `metrics.csv`，检查点，完整的配置，以及给 TensorBoard 的事件文件
# （先 `%load_ext tensorboard`，再 `%tensorboard --logdir outputs`）。
#
# 训练还可以接着做。`resume` 从最后一个检查点继续，结果与从未停下的训练完全一样：

# %%
run = run.resume(f"trainer.max_epochs={EPOCHS + 1}")
run.metrics[-1]

# %% [markdown] lang="en"
# **Try it**: start a run, press the notebook's stop button in the middle of it, and go on with
# `fmnist_lit.load_run("latest").resume()`.

# %% [markdown] lang="zh-CN"
# **试一试**：开始一次训练，中途按下笔记本的停止按钮，再用 `fmnist_lit.load_run("latest").resume()` 接着训练。

# %% [markdown] lang="en"
# ## Hydra: a run is a few words
#
# The words in quotes are **Hydra**'s. Everything that can be chosen has a name with a default, and a run says only
# what is to be different:
#
# - An **override** is `key=value`: `optimizer.lr=0.1`, `trainer.max_epochs=5`, `seed=1`.
# - A **group** is a part that can be swapped as a whole, and its options are small files: `optimizer=adam` takes
#   `conf/optimizer/adam.yaml` in place of `conf/optimizer/sgd.yaml`, with all that is in it.
# - A **multirun** is several values separated by commas: every combination of them is run. That comes below.
#
# On a command line the same words do the same: `python -m fmnist_lit optimizer=adam trainer.max_epochs=5`.

# %% [markdown] lang="zh-CN"
# ## Hydra：几个词就是一次训练
#
# 引号里的那些词属于 **Hydra**。凡是可以选择的东西都有名字和默认值，一次训练只需说出与默认不同的地方：
#
# - **覆盖**（override）写成 `key=value`：`optimizer.lr=0.1`、`trainer.max_epochs=5`、`seed=1`。
# - **配置组**（group）是可以整个更换的部件，每个选项是一个小文件：`optimizer=adam` 表示用 `conf/optimizer/adam.yaml`
#   代替 `conf/optimizer/sgd.yaml`，连同里面的所有内容。
# - **批量实验**（multirun）是用逗号隔开的几个值：所有组合都会跑一遍。下面就会用到。
#
# 在命令行里，同样的词做同样的事：`python -m fmnist_lit optimizer=adam trainer.max_epochs=5`。

# %%
try:
    fmnist_lit.train("optimizer=adma")
except fmnist_lit.ConfigError as error:
    print(error)

# %% [markdown] lang="en"
# A word that is wrong is refused before anything is trained. One that is right changes one part and nothing else. A run
# folder keeps the whole configuration, of which this is what the group `optimizer` was:

# %% [markdown] lang="zh-CN"
# 写错的词在训练开始之前就会被拒绝。写对的词只更换一个部件，别的都不动。每次训练的文件夹里都存着完整的配置，
# 下面打印的是其中的 `optimizer` 组：


# %%
from omegaconf import OmegaConf


def compare(runs):
    figure, ax = plt.subplots(figsize=(7, 3))
    for name, run in runs.items():
        epochs, accuracies = zip(*((row["epoch"], 100 * row["val_accuracy"]) for row in run.metrics))
        ax.plot(epochs, accuracies, "o-", label=name)
    ax.set(xlabel="epoch", ylabel="validation accuracy (%)", title=run.data)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    plt.show()


adam = fmnist_lit.train(*DATA, f"trainer.max_epochs={EPOCHS}", "optimizer=adam")
compare({"optimizer=sgd": run, "optimizer=adam": adam})
print(OmegaConf.to_yaml(OmegaConf.load(adam.folder / ".hydra" / "config.yaml").optimizer))

# %% [markdown] lang="en"
# **Try it**: another group, such as `model=linear` or `scheduler=cosine`. `adam.results` has everything about a run.

# %% [markdown] lang="zh-CN"
# **试一试**：换一个配置组，例如 `model=linear` 或 `scheduler=cosine`。一次训练的所有信息都在 `adam.results` 里。

# %% [markdown] lang="en"
# ## Losses
#
# A loss turns the network's answer and the truth into one number to be made small. Its slope is all that the network
# ever hears of its mistakes, so the loss decides what a mistake is. Below, $z$ are the $C = 10$ logits, $y$ is the
# true class, and $t$ the truth as a *one-hot* vector: 1 at $y$, 0 elsewhere.

# %% [markdown] lang="zh-CN"
# ## 损失函数
#
# 损失函数把网络的回答与真实答案合成一个数，训练就是要让它变小。网络对自己所犯的错误，知道的只有这个数的斜率，
# 所以什么算错、错得多严重，都由损失函数说了算。下面 $z$ 是 $C = 10$ 个 logits， $y$ 是真实类别，
# $t$ 是写成**独热**（one-hot）向量的真实答案：在 $y$ 处为 1，其余为 0。

# %% [markdown] lang="en"
# ### Cross entropy, which is also NLL
#
# The surprise at the true class: nothing where its probability is 1, without limit where it is 0.
#
# $$ \ell = -\log p_y = -z_y + \log \sum_{k=1}^{C} e^{z_k} $$
#
# `nn.CrossEntropyLoss` takes logits and does the softmax itself. In two steps it is `nn.LogSoftmax` and then
# `nn.NLLLoss`, the negative log-likelihood, which takes log-probabilities. `loss=cross_entropy` and `loss=nll` are
# the same.
#
# ### MSE and L1
#
# The mean of the squared, or of the absolute differences between logits and one-hot vector. They are made for numbers,
# not for classes; L1 cares less about single large errors.
#
# $$ \ell_\mathrm{MSE} = \frac{1}{C} \sum_{c=1}^{C} (z_c - t_c)^2, \qquad \ell_\mathrm{L1} = \frac{1}{C} \sum_{c=1}^{C} \vert z_c - t_c \vert $$
#
# ### BCE with logits
#
# Ten separate questions, yes or no, each answered by a sigmoid $\sigma(z) = 1 / (1 + e^{-z})$. This is for images
# that may belong to several classes at once, or to none.
#
# $$ \ell = -\frac{1}{C} \sum_{c=1}^{C} \left( t_c \log \sigma(z_c) + (1 - t_c) \log (1 - \sigma(z_c)) \right) $$
#
# What they ask for shows best for a single image, as the logit of its true class grows and the nine others stay at 0:

# %% [markdown] lang="zh-CN"
# ### 交叉熵，也就是 NLL
#
# 看到真实类别时的“惊异”：它的概率是 1，损失就是零；概率越接近 0，损失越大，没有上限。
#
# $$ \ell = -\log p_y = -z_y + \log \sum_{k=1}^{C} e^{z_k} $$
#
# `nn.CrossEntropyLoss` 的输入是 logits，softmax 由它自己做。分成两步，就是先 `nn.LogSoftmax`，再 `nn.NLLLoss`，
# 后者即负对数似然，输入是对数概率。`loss=cross_entropy` 与 `loss=nll` 是一回事。
#
# ### MSE 与 L1
#
# logits 与独热向量之差的平方，或者绝对值，取平均。它们是为数值而不是为类别设计的；L1 不那么在意个别的大误差。
#
# $$ \ell_\mathrm{MSE} = \frac{1}{C} \sum_{c=1}^{C} (z_c - t_c)^2, \qquad \ell_\mathrm{L1} = \frac{1}{C} \sum_{c=1}^{C} \vert z_c - t_c \vert $$
#
# ### 带 logits 的二元交叉熵（BCE with logits）
#
# 十个互不相干的是非题，每题由 sigmoid 函数 $\sigma(z) = 1 / (1 + e^{-z})$ 来回答。
# 如果一张图片可以同时属于几个类别，或者一个都不属于，就用它。
#
# $$ \ell = -\frac{1}{C} \sum_{c=1}^{C} \left( t_c \log \sigma(z_c) + (1 - t_c) \log (1 - \sigma(z_c)) \right) $$
#
# 它们各自想要什么，看一张图片就清楚了：真实类别的 logit 逐渐增大，其余九个保持为 0。

# %%
true_logit = torch.linspace(-4, 8, 200)
logits = F.pad(true_logit.unsqueeze(1), (0, 9))
truth = torch.zeros(200, dtype=torch.long)
one_hot = F.one_hot(truth, 10).float()
curves = {
    "cross_entropy": F.cross_entropy(logits, truth, reduction="none"),
    "mse": F.mse_loss(logits, one_hot, reduction="none").mean(1),
    "l1": F.l1_loss(logits, one_hot, reduction="none").mean(1),
    "bce_with_logits": F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").mean(1),
}
figure, ax = plt.subplots(figsize=(7, 3.4))
for name, curve in curves.items():
    ax.plot(true_logit, curve, label=name)
ax.set(xlabel="logit of the true class", ylabel="loss of the image", ylim=(-0.1, 5))
ax.legend()
plt.show()

# %% [markdown] lang="en"
# Cross entropy and BCE leave a confident right answer alone. MSE and L1 want exactly 1: an answer that is more right
# than that is pulled back.
#
# ### The penalty on weights
#
# A price on the network rather than on its answers, added to any loss: $\lambda$ times the sum of the absolute weights.
# With `regularization.l1=1e-4` most weights end near 0.
#
# $$ \ell + \lambda \sum_w \vert w \vert $$
#
# ### Compare them
#
# Several values of a key make a **multirun**; here it is called a sweep. MSE, L1 and BCE average over the ten
# classes, which makes their slopes about ten times smaller, so each loss is tried at two learning rates. Otherwise we
# would only learn which loss our learning rate happened to suit.

# %% [markdown] lang="zh-CN"
# 答案又对又自信的时候，交叉熵和 BCE 就不再管它。MSE 和 L1 要的是正好等于 1：超过了，就是“对过了头”，也要拉回来。
#
# ### 权重的惩罚
#
# 它不是针对回答，而是网络自身的代价，可以加在任何损失函数上：系数 $\lambda$ 乘以所有权重的绝对值之和。
# 用 `regularization.l1=1e-4`，大多数权重最后会接近 0。
#
# $$ \ell + \lambda \sum_w \vert w \vert $$
#
# ### 比较
#
# 给一个键写上几个值，就是 Hydra 的 **multirun**，这里叫批量实验（sweep）。MSE、L1 和 BCE 还要在十个类别上取平均，
# 斜率只有大约十分之一，所以每个损失函数都试两个学习率。不然比出来的，只是我们的学习率碰巧适合谁。

# %%
losses = fmnist_lit.sweep(
    *DATA,
    "trainer.max_epochs=1",
    "data.batch_size=256",
    "optimizer=sgd_momentum",
    "optimizer.lr=0.1,0.5",
    "loss=cross_entropy,mse,l1,bce_with_logits",
)
losses

# %% [markdown] lang="en"
# The table is ranked by validation accuracy, and the verdict says what this one epoch with one seed cannot tell.
#
# **Try it**: which loss comes last, and which classes does it give up on? [The guide](../docs/guide/losses.md) has
# the answer, and label smoothing too.

# %% [markdown] lang="zh-CN"
# 表格按验证准确率排名；结论里会说明，只凭一个 epoch、一个种子，哪些差别看不出来。
#
# **试一试**：哪个损失函数垫底？它放弃了哪些类别？答案在[指南](../docs/guide/losses.zh-CN.md)里，那里还有标签平滑。

# %% [markdown] lang="en"
# ## Optimisers
#
# An optimiser turns the slope into a step. In these formulas $\theta$ is a weight, $g_t$ its slope at step $t$, and
# $\eta$ the learning rate, `optimizer.lr`.
#
# ### SGD and momentum
#
# Plain SGD steps along the slope. Momentum keeps a running sum of slopes: what agrees from step to step adds up, what
# alternates cancels out. Nesterov's momentum looks one step ahead.
#
# $$ \theta_t = \theta_{t-1} - \eta g_t $$
#
# $$ b_t = \mu b_{t-1} + g_t, \qquad \theta_t = \theta_{t-1} - \eta b_t $$
#
# ### Adagrad and RMSprop
#
# Divide each slope by how large the slopes of that weight usually are. Adagrad adds up squares for ever, so its steps
# shrink; RMSprop forgets.
#
# $$ s_t = s_{t-1} + g_t^2, \qquad \theta_t = \theta_{t-1} - \frac{\eta g_t}{\sqrt{s_t} + \epsilon} $$
#
# $$ v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2, \qquad \theta_t = \theta_{t-1} - \frac{\eta g_t}{\sqrt{v_t} + \epsilon} $$
#
# ### Adam
#
# Both at once: momentum over RMSprop's root, each corrected for having started at 0. A weight moves by about $\eta$ a
# step at most, so 0.001 works nearly everywhere.
#
# $$ m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 $$
#
# $$ \theta_t = \theta_{t-1} - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} $$
#
# ### Weight decay
#
# Each step also shrinks the weights a little. Most optimisers add $\lambda \theta$ to the slope; AdamW shrinks the
# weights beside the slope, so that the division does not touch it. `optimizer.weight_decay` is $\lambda$.
#
# $$ \theta_{t-1} \leftarrow (1 - \eta \lambda) \theta_{t-1} $$
#
# Forty steps from the same place, in a valley thirty times steeper across than along:

# %% [markdown] lang="zh-CN"
# ## 优化器
#
# 优化器把斜率（梯度）变成一步更新。下面的公式里 $\theta$ 是一个权重， $g_t$ 是它在第 $t$ 步的斜率，
# $\eta$ 是学习率，即 `optimizer.lr`。
#
# ### SGD 与动量
#
# 朴素的 SGD 沿着斜率走。动量（momentum）把斜率累积起来：各步方向一致的部分越加越多，来回变号的部分互相抵消。
# Nesterov 动量还会向前看一步。
#
# $$ \theta_t = \theta_{t-1} - \eta g_t $$
#
# $$ b_t = \mu b_{t-1} + g_t, \qquad \theta_t = \theta_{t-1} - \eta b_t $$
#
# ### Adagrad 与 RMSprop
#
# 把每个权重的斜率，除以它的斜率平时的大小。Adagrad 把平方一直加下去，所以步子越来越小；RMSprop 则会逐渐遗忘。
#
# $$ s_t = s_{t-1} + g_t^2, \qquad \theta_t = \theta_{t-1} - \frac{\eta g_t}{\sqrt{s_t} + \epsilon} $$
#
# $$ v_t = \alpha v_{t-1} + (1 - \alpha) g_t^2, \qquad \theta_t = \theta_{t-1} - \frac{\eta g_t}{\sqrt{v_t} + \epsilon} $$
#
# ### Adam
#
# 两者合一：用动量除以 RMSprop 的那个根，并且校正两者从 0 起步带来的偏差。一个权重每步至多移动大约 $\eta$ ，
# 所以 0.001 几乎处处可用。
#
# $$ m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 $$
#
# $$ \theta_t = \theta_{t-1} - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} $$
#
# ### 权重衰减
#
# 每一步还把权重缩小一点。大多数优化器把 $\lambda \theta$ 加到斜率上；AdamW 则在斜率之外单独缩小权重，不让它经过那次除法。
# `optimizer.weight_decay` 就是 $\lambda$ 。
#
# $$ \theta_{t-1} \leftarrow (1 - \eta \lambda) \theta_{t-1} $$
#
# 在一条横向比纵向陡三十倍的山谷里，从同一个地方出发，各走四十步：


# %%
def descend(make_optimizer, steps=40):
    point = nn.Parameter(torch.tensor([-9.0, 2.0]))
    optimizer = make_optimizer([point])
    path = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * point[0] ** 2 + 15 * point[1] ** 2).backward()
        optimizer.step()
        path.append(point.detach().clone())
    return torch.stack(path)


paths = {
    "SGD(lr=0.06)": descend(lambda p: torch.optim.SGD(p, lr=0.06)),
    "SGD(lr=0.03, momentum=0.8)": descend(lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8)),
    "RMSprop(lr=0.3)": descend(lambda p: torch.optim.RMSprop(p, lr=0.3)),
    "Adam(lr=0.6)": descend(lambda p: torch.optim.Adam(p, lr=0.6)),
}
x, y = torch.meshgrid(torch.linspace(-10, 4, 80), torch.linspace(-2.5, 2.5, 60), indexing="xy")
figure, axes = plt.subplots(2, 2, figsize=(9, 4.4), sharex=True, sharey=True)
for ax, (name, path) in zip(axes.flat, paths.items()):
    ax.contour(x, y, 0.5 * x**2 + 15 * y**2, levels=[1, 4, 12, 30, 60, 100], colors="#ccc", linewidths=1)
    ax.plot(*path.T, "o-", markersize=3, linewidth=1)
    ax.plot(0, 0, "*", markersize=12)
    ax.set(title=name, xlim=(-10, 4), ylim=(-2.5, 2.5))
plt.show()

# %% [markdown] lang="en"
# **Try it**: raise SGD's learning rate to 0.067. Where is the edge? (The steep direction bears at most 2 / 30.)
#
# ### Compare them
#
# Each at three learning rates, in one epoch.

# %% [markdown] lang="zh-CN"
# **试一试**：把 SGD 的学习率提高到 0.067。边界在哪里？（最陡的方向至多承受 2 / 30。）
#
# ### 比较
#
# 每个优化器试三个学习率，各训练一个 epoch。

# %%
optimizers = fmnist_lit.sweep(
    *DATA,
    "trainer.max_epochs=1",
    "data.batch_size=256",
    "optimizer=sgd,sgd_momentum,rmsprop,adam",
    "optimizer.lr=1e-3,1e-2,1e-1",
)
optimizers

# %% [markdown] lang="en"
# Look along the rows: the learning rate that suits one optimiser ruins another. An optimiser that you have tried only
# at the learning rate of its predecessor you have not tried. The verdict warns where the best is at the edge of what
# was tried. A row near 10 % at a high learning rate has died: a step threw the weights so far that the network gives every
# image the same answer.
#
# **Try it**: `optimizers.best` and `optimizers.rows[0]`. Then `optimizer=muon` with `data.batch_size=512`: it gives
# every direction of a weight matrix the same share of the step, and [the guide](../docs/guide/optimizers.md) has its
# formula.

# %% [markdown] lang="zh-CN"
# 横着看：适合这个优化器的学习率，会毁掉另一个。换了优化器，却只试前一个的学习率，就等于没有试过。
# 如果最好的值落在所试范围的边缘，结论里会有提醒。学习率很大而准确率在 10 % 上下的，是“死”了：
# 某一步把权重甩得太远，网络从此对每张图片都给出同一个答案。
#
# **试一试**：看看 `optimizers.best` 和 `optimizers.rows[0]`。再用 `optimizer=muon` 加上 `data.batch_size=512` 训练一次：
# 它让权重矩阵的各个方向在一步里所占的份额相同，公式见[指南](../docs/guide/optimizers.zh-CN.md)。

# %% [markdown] lang="en"
# ## Schedules
#
# Large steps cover the distance, small steps find the bottom. A *schedule* lets the learning rate fall during the
# run, and some let it rise first, while the slopes are large and nothing is known yet. With $t$ of $T$ steps done, or
# $e$ epochs:
#
# | `scheduler=` | learning rate |
# | --- | --- |
# | `step` | $\eta \gamma^{\lfloor e / s \rfloor}$ |
# | `exponential` | $\eta \gamma^e$ |
# | `cosine` | $\eta (1 + \cos(\pi t / T)) / 2$ |
# | `warmup_linear` | straight up in the first tenth, then straight down |
# | `one_cycle` | the same along cosines |

# %% [markdown] lang="zh-CN"
# ## 学习率调度
#
# 大步用来赶路，小步用来寻底。**学习率调度**（schedule）让学习率在训练过程中逐渐下降；有的会先让它升上去，
# 因为开头的斜率很大，而优化器还什么都不知道。设已经走了 $t$ 步（总共 $T$ 步），或者 $e$ 个 epoch：
#
# | `scheduler=` | 学习率 |
# | --- | --- |
# | `step` | $\eta \gamma^{\lfloor e / s \rfloor}$ |
# | `exponential` | $\eta \gamma^e$ |
# | `cosine` | $\eta (1 + \cos(\pi t / T)) / 2$ |
# | `warmup_linear` | 前十分之一沿直线上升，然后沿直线下降 |
# | `one_cycle` | 同上，但沿余弦曲线 |

# %%
from torch.optim import lr_scheduler

from fmnist_lit.schedulers import OneCycleLR, WarmupLinearLR

STEPS, IN_EPOCH = 100, 10
schedules = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=3 * IN_EPOCH, gamma=0.5),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.9 ** (1 / IN_EPOCH)),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS),
    "warmup_linear": lambda optimizer: WarmupLinearLR(optimizer, total_steps=STEPS),
    "one_cycle": lambda optimizer: OneCycleLR(optimizer, total_steps=STEPS),
}
figure, ax = plt.subplots(figsize=(7, 3))
for name, make_schedule in schedules.items():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make_schedule(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ax.plot(rates, label=name)
ax.set(xlabel="% of the run", ylabel="learning rate, as a share of optimizer.lr")
ax.legend()
plt.show()

# %% [markdown] lang="en"
# At a learning rate that is a little too large for the beginning, a schedule makes the most of a difference:

# %% [markdown] lang="zh-CN"
# 如果学习率对开头来说稍嫌太大，调度的作用就看得最清楚：

# %%
schedulers = fmnist_lit.sweep(
    *DATA,
    f"trainer.max_epochs={EPOCHS}",
    "data.batch_size=256",
    "optimizer=sgd_momentum",
    "optimizer.lr=0.3",
    "scheduler=constant,cosine,warmup_linear",
)
schedulers

# %% [markdown] lang="en"
# **Try it**: the same with `optimizer.lr=0.03,0.3`. How much is left of the difference? More in
# [the guide](../docs/guide/learning_rate_and_schedules.md).

# %% [markdown] lang="zh-CN"
# **试一试**：改用 `optimizer.lr=0.03,0.3` 再跑一遍，差别还剩多少？详见[指南](../docs/guide/learning_rate_and_schedules.zh-CN.md)。

# %% [markdown] lang="en"
# ## The complete run
#
# Now everything together: a good optimiser, a schedule, twice the epochs. At the end the test images are read, once,
# with the weights of the epoch that was best on the validation images (ringed in the picture).

# %% [markdown] lang="zh-CN"
# ## 完整的训练
#
# 现在把一切放到一起：好的优化器，学习率调度，两倍的训练轮数。最后才读测试集，只读一次，
# 用的是验证集上最好的那个 epoch 的权重（图中圈出的点）。

# %%
RECIPE = [
    *DATA,
    f"trainer.max_epochs={2 * EPOCHS}",
    "data.batch_size=256",
    "optimizer=adamw",
    "optimizer.lr=3e-3",
    "scheduler=one_cycle",
]
complete = fmnist_lit.train(*RECIPE)
complete

# %% [markdown] lang="en"
# A figure is not yet a look. `classifier()` gives back what was trained, ready for images of your own, too. These are
# the test images of whose wrong answer it is surest:

# %% [markdown] lang="zh-CN"
# 只有一个数字，还不算看过。`classifier()` 交出训练好的分类器，也可以用在你自己的图片上。下面是答错了却最自信的测试图片：

# %%
predictions = complete.classifier().predict(data.test_images.pixels)
certainty = predictions.probabilities.max(1).values
wrong = predictions.class_indices != data.test_images.labels
surest = (certainty * wrong).argsort(descending=True)[:12]
figure, axes = plt.subplots(2, 6, figsize=(9, 4))
for ax, index in zip(axes.flat, surest):
    ax.imshow(data.test_images.pixels[index, 0], cmap="gray_r")
    ax.set_title(f"{predictions.labels[index]},\nis {data.classes[data.test_images.labels[index]]}", fontsize=9)
    ax.axis("off")
plt.show()
print(f"{data.dataset}: {int(wrong.sum())} of {len(wrong)} test images are wrong")

# %% [markdown] lang="en"
# **Try it**: how many of these would you have got right? And `experiment=fastest_90` in place of the whole recipe: a
# ready one, for the same network.

# %% [markdown] lang="zh-CN"
# **试一试**：这些图片你能答对几张？再用 `experiment=fastest_90` 代替整个配方：那是为同一个网络准备好的现成配方。

# %% [markdown] lang="en"
# ## Change one thing and look
#
# From here on it is yours. Change one thing, run the cell, look, and keep what helps. A second seed first: what it
# changes by itself is luck, and a change has to do better than that.

# %% [markdown] lang="zh-CN"
# ## 改一处，看一看
#
# 从这里开始就是你的了。改一处，运行，看结果，有用就留下。先换一个种子：只换种子带来的差别就是运气，
# 任何改动都要比它更大才算数。

# %%
CHANGE = "optimizer.lr=3e-2"

other_seed = fmnist_lit.train(*RECIPE, "seed=1")
changed = fmnist_lit.train(*RECIPE, CHANGE)
compare({"recipe": complete, "seed=1": other_seed, CHANGE: changed})

# %% [markdown] lang="en"
# Some things to put there:
#
# | `CHANGE` | the question |
# | --- | --- |
# | `data.batch_size=1024` | fewer, better steps: does the learning rate still suit? |
# | `model.hidden_sizes=[64]` | how small may the network be? |
# | `model=cnn` | what is it worth to know that neighbouring pixels belong together? |
# | `model.dropout=0.3` | does it close the gap between training and validation? |
# | `data.augmentation.shift=2` | and what do shifted images do? |
# | `loss=label_smoothing` | is a network that is less certain more often right? |
# | `optimizer.weight_decay=0.5` | when does too much of it hurt? |
#
# ## Where to go on
#
# - [The guide](../docs/guide/README.md): every loss, optimiser and schedule with formulas and measured pictures.
# - [From Python, and in a notebook](../docs/python.md): everything that `fmnist_lit.train` and `sweep` can do.
# - [Bring your own](../docs/your_own.md): a model, a loss, a data set of yours, as a class and a small file.
# - `python -m fmnist_lit experiment=tutorial` is the original tutorial to the letter, test set after every epoch and all.

# %% [markdown] lang="zh-CN"
# 可以填在那里的，例如：
#
# | `CHANGE` | 问题 |
# | --- | --- |
# | `data.batch_size=1024` | 步数少了，每步更准：学习率还合适吗？ |
# | `model.hidden_sizes=[64]` | 网络可以小到什么程度？ |
# | `model=cnn` | 知道相邻的像素有关系，值多少？ |
# | `model.dropout=0.3` | 它能缩小训练与验证之间的差距吗？ |
# | `data.augmentation.shift=2` | 把图片平移一下又会怎样？ |
# | `loss=label_smoothing` | 不那么自信的网络，答对的会更多吗？ |
# | `optimizer.weight_decay=0.5` | 权重衰减多到什么时候就有害了？ |
#
# ## 接下来
#
# - [指南](../docs/guide/README.zh-CN.md)：每一种损失函数、优化器和学习率调度，有公式，有实测的图。
# - [在 Python 和笔记本里使用](../docs/python.md)（英文）：`fmnist_lit.train` 和 `sweep` 能做的一切。
# - [用自己的部件](../docs/your_own.md)（英文）：自己的模型、损失函数、数据集，只要一个类和一个小文件。
# - `python -m fmnist_lit experiment=tutorial` 一字不差地重现原版教程，包括每个 epoch 之后看测试集。
