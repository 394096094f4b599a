local function a(i, j) local k = i + j; return 1 / (k * (k + 1) / 2 + i + 1) end
local function times(n, from, to, turned)
  for i = 0, n - 1 do
    local sum = 0
    for j = 0, n - 1 do sum = sum + from[j] * (turned and a(j, i) or a(i, j)) end
    to[i] = sum
  end
end
local n, u, v, w = 1400, {}, {}, {}
for i = 0, n - 1 do u[i] = 1 end
for _ = 1, 12 do
  times(n, u, w, false) times(n, w, v, true)
  times(n, v, w, false) times(n, w, u, true)
end
local uv, vv = 0, 0
for i = 0, n - 1 do uv, vv = uv + u[i] * v[i], vv + v[i] * v[i] end
print(("%.9f"):format(math.sqrt(uv / vv)))
