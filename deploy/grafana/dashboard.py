"""Building blocks of Grafana dashboards: a dashboard is a list of rows, a row a title and a list of panels.

Panels are placed from left to right, 24 columns wide, and start a new line when they do not fit. Queries use the
variables $model and $instance through SELECT, which stands for their label matchers.
"""

WIDTH = 24
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECT = 'model_name=~"$model", instance=~"$instance"'


def rate(metric, by="", labels="", window="$__rate_interval"):
    """Sum over replicas of the rate of a counter, for each value of the labels `by`."""
    selector = ", ".join(part for part in (SELECT, labels) if part)
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{selector}}}[{window}]))"


def quantile(share, histogram, by=""):
    return f"histogram_quantile({share}, {rate(histogram + '_bucket', ', '.join(filter(None, (by, 'le'))))})"


def percentiles(histogram):
    return {f"p{share}": quantile(share / 100, histogram) for share in (50, 90, 99)}


def mean(histogram, by="", window="$__rate_interval"):
    return f"{rate(histogram + '_sum', by, window=window)} / {rate(histogram + '_count', by, window=window)}"


def gauge(metric, aggregate="sum", by="", labels=""):
    selector = ", ".join(part for part in (SELECT, labels) if part)
    grouping = f" by ({by})" if by else ""
    return f"{aggregate}{grouping} ({metric}{{{selector}}})"


def process(metric):
    """process_* carry no model_name; $instance lists the replicas of the model only."""
    return f'{metric}{{instance=~"$instance"}}'


def panel(kind, title, queries, unit="short", width=8, height=HEIGHT, about="", table=False, **more):
    """`queries`: {legend: expression}. `table`: one value per series, of now, instead of a curve."""
    targets = [
        {
            "datasource": DATASOURCE,
            "refId": chr(ord("A") + i),
            "expr": expression,
            "legendFormat": legend,
            **({"instant": True, "range": False, "format": "table"} if table else {}),
        }
        for i, (legend, expression) in enumerate(queries.items())
    ]
    defaults = {"unit": unit, "min": 0, **more.pop("defaults", {})}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": more.pop("options", {}),
        "gridPos": {"w": width, "h": height},
        **more,
    }


def curves(title, queries, unit="short", stacked=False, **more):
    defaults = {
        "custom": {
            "lineWidth": 1,
            "fillOpacity": 30 if stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if stacked else "none"},
        }
    }
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, queries, unit, defaults=defaults, options=options, **more)


def number(title, query, unit="short", steps=(), **more):
    """One figure. `steps`: (from which value, colour)."""
    thresholds = {
        "mode": "absolute",
        "steps": [{"color": "green", "value": None}] + [{"color": colour, "value": value} for value, colour in steps],
    }
    return panel(
        "stat",
        title,
        {"": query},
        unit,
        width=4,
        height=4,
        defaults={"thresholds": thresholds},
        options={"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}},
        **more,
    )


def bars(title, query, legend, unit="short", **more):
    """The series of now as bars, longest first as the query has them."""
    made = panel(
        "bargauge",
        title,
        {legend: query},
        unit,
        options={"displayMode": "gradient", "orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}},
        defaults={"color": {"mode": "continuous-BlYlRd"}},
        **more,
    )
    for target in made["targets"]:
        target.update(instant=True, range=False)
    return made


def history(title, query, legend, highest, unit="short", **more):
    """Time to the right, one line per series, the value as a colour from 0 to `highest`."""
    return panel(
        "status-history",
        title,
        {legend: query},
        unit,
        defaults={"max": highest, "color": {"mode": "continuous-BlYlRd"}, "custom": {"fillOpacity": 90}},
        options={"showValue": "never", "rowHeight": 0.95, "legend": {"showLegend": False}},
        **more,
    )


def matrix(title, query, row, column, highest, **more):
    """One coloured cell for each value of the labels `row` and `column`."""
    numbers = [{"targetField": label, "destinationType": "number"} for label in (row, column)]
    transformations = [
        {"id": "convertFieldType", "options": {"conversions": numbers}},
        {"id": "sortBy", "options": {"sort": [{"field": column}]}},
        {"id": "groupingToMatrix", "options": {"columnField": column, "rowField": row, "valueField": "Value"}},
        {"id": "sortBy", "options": {"sort": [{"field": f"{row}\\{column}"}]}},
    ]
    made = panel(
        "table",
        title,
        {"": query},
        table=True,
        transformations=transformations,
        options={"cellHeight": "sm", "showHeader": True},
        defaults={
            "max": highest,
            "decimals": 2,
            "color": {"mode": "continuous-BlYlRd"},
            "custom": {"cellOptions": {"type": "color-background", "mode": "basic"}, "align": "center", "minWidth": 44},
        },
        **more,
    )
    name = {"id": "byName", "options": f"{row}\\{column}"}
    made["fieldConfig"]["overrides"] = [
        {
            "matcher": name,
            "properties": [{"id": "custom.cellOptions", "value": {"type": "auto"}}, {"id": "decimals", "value": 0}],
        }
    ]
    return made


def buckets(title, histogram, unit="s", **more):
    """The buckets of a histogram over time."""
    made = panel(
        "heatmap",
        title,
        {"{{le}}": rate(histogram + "_bucket", "le")},
        unit,
        options={
            "calculate": False,
            "yAxis": {"unit": unit},
            "color": {"scheme": "Oranges", "mode": "scheme"},
            "cellGap": 1,
        },
        **more,
    )
    made["targets"][0]["format"] = "heatmap"
    return made


def variable(name, label, query, multiple=True):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "refresh": 2,
        "sort": 3,
        "query": {"qryType": 1, "query": query, "refId": name},
        "definition": query,
        "multi": multiple,
        "includeAll": multiple,
        "current": {"text": "All", "value": "$__all"} if multiple else {},
    }


def dashboard(uid, title, about, rows, variables=()):
    panels, y = [], 0
    for row, members in rows:
        panels.append(
            {
                "type": "row",
                "title": row,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y, x, line = y + 1, 0, 0
        for member in members:
            place = member["gridPos"]
            if x + place["w"] > WIDTH:
                x, y, line = 0, y + line, 0
            place.update(x=x, y=y)
            x, line = x + place["w"], max(line, place["h"])
            panels.append(member)
        y += line
    for i, member in enumerate(panels):
        member["id"] = i + 1
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["switchyard"],
        "schemaVersion": 38,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["switchyard"],
                "title": "Switchyard",
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("model", "Model", "label_values(switchyard_ready, model_name)", multiple=False),
                variable("instance", "Replica", 'label_values(switchyard_ready{model_name=~"$model"}, instance)'),
                *variables,
            ]
        },
        "panels": panels,
    }
