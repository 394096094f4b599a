local bodies = {}
for i = 1, 5 do
  local a = i * 1.7
  bodies[i] = {x = math.cos(a) * i * 3, y = math.sin(a) * i * 3, z = i * 0.1,
    mass = i == 1 and 39 or 0.01 * i, vx = -math.sin(a), vy = math.cos(a), vz = 0.01 * i}
end
local function advance(dt)
  for i = 1, #bodies do
    local a = bodies[i]
    for k = i + 1, #bodies do
      local b = bodies[k]
      local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
      local d2 = dx * dx + dy * dy + dz * dz + 0.01
      local m = dt / (d2 * math.sqrt(d2))
      a.vx, a.vy, a.vz = a.vx - dx * b.mass * m, a.vy - dy * b.mass * m, a.vz - dz * b.mass * m
      b.vx, b.vy, b.vz = b.vx + dx * a.mass * m, b.vy + dy * a.mass * m, b.vz + dz * a.mass * m
    end
  end
  for i = 1, #bodies do
    local b = bodies[i]
    b.x, b.y, b.z = b.x + dt * b.vx, b.y + dt * b.vy, b.z + dt * b.vz
  end
end
for _ = 1, 1000000 do advance(0.001) end
print(("%.9f"):format(bodies[1].x + bodies[5].y))
