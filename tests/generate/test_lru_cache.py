from discl_ray.generate.lru_cache import LRUCache


def test_a_cache_keeps_the_results_used_last_and_makes_the_others_again():
    cache = LRUCache[str, int](2)
    made: list[str] = []

    def get(key):
        return cache.get(key, lambda: made.append(key) or len(made))

    assert [get(key) for key in "abaca"] == [1, 2, 1, 3, 1]
    assert get("b") == 4
    assert made == ["a", "b", "c", "b"]
