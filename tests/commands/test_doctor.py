"""The doctor prints every finding and counts the problems."""

from discl_ray.commands.doctor import examine_all


def test_a_wrong_configuration_is_a_problem_that_is_counted_once(capsys, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    problems = examine_all(["conf/digits_lt.yaml"], ["plan.replica=3"])
    lines = capsys.readouterr().out.splitlines()
    assert problems >= 1
    assert sum("did you mean 'replicas'?" in line for line in lines) == 1
    assert lines[-1] == f"{problems} problem{'s' if problems > 1 else ''}"
