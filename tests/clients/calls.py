"""Calls of other projects' clients to a service, each as its documentation has it.

`python calls.py CLIENT URL` in an environment with that client prints the vectors, or the error, of each of its calls
as JSON; the texts come on standard input, as JSON too. Nothing of this project is imported, since that environment
does not have it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

Vectors = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Call:
    """A call of a client.

    Args:
        client: the package, as it is installed.
        name: what is called.
        run: from the service's address and texts to their vectors.
        setting: what a client has to be told beside the service's address and the model's name, if anything.
        server: the setting of the service that it needs instead.
        normalize: whether it gets vectors of length one.
    """

    client: str
    name: str
    run: Callable[[str, list[str]], Vectors]
    setting: str = ""
    server: str = ""
    normalize: bool = True


CALLS: list[Call] = []


def call(client: str, name: str, **more: Any) -> Callable[..., Any]:
    """Register a function as a call."""

    def register(run: Callable[[str, list[str]], Vectors]) -> Callable[[str, list[str]], Vectors]:
        CALLS.append(Call(client, name, run, **more))
        return run

    return register


@call("openai", "embeddings.create")
def openai(url: str, texts: list[str]) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    return [item.embedding for item in client.embeddings.create(model="default", input=texts).data]


@call("openai", "embeddings.create, base_url without /v1")
def openai_without_version(url: str, texts: list[str]) -> Vectors:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none")
    return [item.embedding for item in client.embeddings.create(model="default", input=texts).data]


def langchain_openai(url: str, **settings: Any) -> Any:
    from langchain_openai import OpenAIEmbeddings

    return OpenAIEmbeddings(base_url=f"{url}/v1", api_key="none", model="default", **settings)


@call("langchain-openai", "OpenAIEmbeddings.embed_documents", server="server.token_ids: cl100k_base")
def langchain_documents(url: str, texts: list[str]) -> Vectors:
    return langchain_openai(url).embed_documents(texts)


@call("langchain-openai", "OpenAIEmbeddings.embed_query", server="server.token_ids: cl100k_base")
def langchain_query(url: str, texts: list[str]) -> Vectors:
    return [langchain_openai(url).embed_query(text) for text in texts]


@call("langchain-openai", "OpenAIEmbeddings.embed_documents", setting="check_embedding_ctx_length=False")
def langchain_texts(url: str, texts: list[str]) -> Vectors:
    return langchain_openai(url, check_embedding_ctx_length=False).embed_documents(texts)


@call("langchain-openai", "OpenAIEmbeddings.embed_query", setting="check_embedding_ctx_length=False")
def langchain_query_text(url: str, texts: list[str]) -> Vectors:
    return [langchain_openai(url, check_embedding_ctx_length=False).embed_query(text) for text in texts]


def langchain_huggingface(url: str) -> Any:
    from huggingface_hub import InferenceClient
    from langchain_huggingface import HuggingFaceEndpointEmbeddings

    embeddings = HuggingFaceEndpointEmbeddings()
    embeddings.client = InferenceClient(model=url)  # its own argument `model` takes no address
    return embeddings


@call(
    "langchain-huggingface",
    "HuggingFaceEndpointEmbeddings.embed_documents",
    setting="embeddings.client = InferenceClient(model=url)",
)
def langchain_endpoint(url: str, texts: list[str]) -> Vectors:
    return langchain_huggingface(url).embed_documents(texts)


@call(
    "langchain-huggingface",
    "HuggingFaceEndpointEmbeddings.embed_query",
    setting="embeddings.client = InferenceClient(model=url)",
)
def langchain_endpoint_query(url: str, texts: list[str]) -> Vectors:
    embeddings = langchain_huggingface(url)
    return [embeddings.embed_query(text) for text in texts]


@call("llama-index-embeddings-openai-like", "OpenAILikeEmbedding.get_text_embedding_batch")
def llama_openai(url: str, texts: list[str]) -> Vectors:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    model = OpenAILikeEmbedding(model_name="default", api_base=f"{url}/v1", api_key="none")
    return model.get_text_embedding_batch(texts)


@call("llama-index-embeddings-openai-like", "OpenAILikeEmbedding.get_query_embedding")
def llama_openai_query(url: str, texts: list[str]) -> Vectors:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    model = OpenAILikeEmbedding(model_name="default", api_base=f"{url}/v1", api_key="none")
    return [model.get_query_embedding(text) for text in texts]


@call("llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference.get_text_embedding_batch")
def llama_tei(url: str, texts: list[str]) -> Vectors:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    return TextEmbeddingsInference(model_name="default", base_url=url).get_text_embedding_batch(texts)


@call("llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference.get_query_embedding")
def llama_tei_query(url: str, texts: list[str]) -> Vectors:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    model = TextEmbeddingsInference(model_name="default", base_url=url)
    return [model.get_query_embedding(text) for text in texts]


@call("litellm", "embedding of openai/...")
def litellm_openai(url: str, texts: list[str]) -> Vectors:
    import litellm

    found = litellm.embedding(model="openai/default", input=texts, api_base=f"{url}/v1", api_key="none")
    return [item["embedding"] for item in found.data]


@call("litellm", "embedding of huggingface/...", setting='input_type="feature-extraction"')  # else it asks the hub
def litellm_huggingface(url: str, texts: list[str]) -> Vectors:
    import litellm

    found = litellm.embedding(
        model="huggingface/default", input=texts, api_base=url, api_key="none", input_type="feature-extraction"
    )
    return [item["embedding"] for item in found.data]


@call("litellm", "embedding of hosted_vllm/...")
def litellm_vllm(url: str, texts: list[str]) -> Vectors:
    import litellm

    found = litellm.embedding(model="hosted_vllm/default", input=texts, api_base=f"{url}/v1", api_key="none")
    return [item["embedding"] for item in found.data]


@call("huggingface_hub", "InferenceClient.feature_extraction")
def hub(url: str, texts: list[str]) -> Vectors:
    from huggingface_hub import InferenceClient

    found: Vectors = InferenceClient(model=url).feature_extraction(texts).tolist()
    return found


@call("huggingface_hub", "InferenceClient.sentence_similarity")
def hub_similarity(url: str, texts: list[str]) -> Vectors:
    from huggingface_hub import InferenceClient

    return [InferenceClient(model=url).sentence_similarity(texts[0], texts)]


@call("haystack-ai", "OpenAIDocumentEmbedder.run")
def haystack_openai(url: str, texts: list[str]) -> Vectors:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder
    from haystack.utils import Secret

    embedder = OpenAIDocumentEmbedder(
        api_key=Secret.from_token("none"), api_base_url=f"{url}/v1", model="default", progress_bar=False
    )
    return [document.embedding for document in embedder.run([Document(content=text) for text in texts])["documents"]]


@call("haystack-ai", "OpenAITextEmbedder.run")
def haystack_openai_text(url: str, texts: list[str]) -> Vectors:
    from haystack.components.embedders import OpenAITextEmbedder
    from haystack.utils import Secret

    embedder = OpenAITextEmbedder(api_key=Secret.from_token("none"), api_base_url=f"{url}/v1", model="default")
    return [embedder.run(text)["embedding"] for text in texts]


@call("huggingface-api-haystack", "HuggingFaceAPIDocumentEmbedder.run", normalize=False)  # which it asks for
def haystack_tei(url: str, texts: list[str]) -> Vectors:
    from haystack import Document
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPIDocumentEmbedder

    embedder = HuggingFaceAPIDocumentEmbedder(
        api_type="text_embeddings_inference", api_params={"url": url}, token=None, progress_bar=False
    )
    return [document.embedding for document in embedder.run([Document(content=text) for text in texts])["documents"]]


@call("huggingface-api-haystack", "HuggingFaceAPITextEmbedder.run", normalize=False)
def haystack_tei_text(url: str, texts: list[str]) -> Vectors:
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder

    embedder = HuggingFaceAPITextEmbedder(api_type="text_embeddings_inference", api_params={"url": url}, token=None)
    return [embedder.run(text)["embedding"] for text in texts]


@call("chromadb", "OpenAIEmbeddingFunction")
def chroma_openai(url: str, texts: list[str]) -> Vectors:
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    embed = OpenAIEmbeddingFunction(api_key="none", api_base=f"{url}/v1", model_name="default")
    return [vector.tolist() for vector in embed(texts)]


@call("chromadb", "HuggingFaceEmbeddingServer")
def chroma_tei(url: str, texts: list[str]) -> Vectors:
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    return [vector.tolist() for vector in HuggingFaceEmbeddingServer(url=f"{url}/embed")(texts)]


def main(client: str, url: str) -> None:
    """Print what each call of a client gives, in the order of `CALLS`."""
    texts = json.load(sys.stdin)
    found: list[dict[str, Any]] = []
    with redirect_stdout(sys.stderr):  # where some clients print to
        for each in CALLS:
            if each.client == client:
                try:
                    found.append({"vectors": each.run(url, texts)})
                except Exception as error:
                    found.append({"error": f"{type(error).__name__}: {error}"})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
